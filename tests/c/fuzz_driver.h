/*
 * Feeds a stage of the core with generated and mutated bytes, under the sanitizers: what cannot be
 * foreseen, beside the tests of what can. A harness defines LLVMFuzzerTestOneInput, as libFuzzer and
 * its kin call it, and samples of what is right; this is the main program for a compiler that has
 * no fuzzer of its own. With -DPGR_LIBFUZZER there is none, and libFuzzer's is linked.
 *
 * The same seed gives the same bytes. PGREPL_FUZZ_ROUNDS says how many inputs, PGREPL_FUZZ_SEED which;
 * with files as arguments the program takes these and nothing else.
 */
#ifndef FUZZ_DRIVER_H
#define FUZZ_DRIVER_H

#undef NDEBUG
#include <assert.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct sample {
    const char *bytes;
    size_t size;
} sample;

#define SAMPLE(text) {text, sizeof(text) - 1}

/* Writes to bytes that were read already, as somebody might who shares the memory. */
static inline void scramble(uint8_t *bytes, size_t size, uint8_t with) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(bytes[i] * 31u + with + i);
}

#ifndef PGR_LIBFUZZER

enum { LONGEST = 512 };

static uint64_t chance_state = 1;

static uint64_t chance(uint64_t below) {
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return (chance_state >> 11) % below;
}

static uint8_t likely_byte(void) {
    static const uint8_t likely[] = {0, 1, 2, 4, 8, 23, 25, 0x7F, 0x80, 0xFE, 0xFF, 'd', 'k', 'w',
                                     'n', 'u', 't', 'b', 'N', 'K', 'O', 'I', 'U', 'D', 'S', 'E',
                                     '0', '9', '-', '+', ':', '.', ' ', 'B', 'C', 'R', 'T', 'M'};
    return chance(4) == 0 ? (uint8_t)chance(256) : likely[chance(sizeof likely)];
}

static size_t insert_at(uint8_t *data, size_t size, size_t at, const char *bytes, size_t count) {
    if (count > LONGEST - size)
        count = LONGEST - size;
    memmove(data + at + count, data + at, size - at);
    memcpy(data + at, bytes, count);
    return size + count;
}

static size_t mutate(uint8_t *data, size_t size, const sample *other) {
    size_t at = (size_t)chance(size + 1), count = (size_t)chance(9);
    char few[8];
    switch (chance(6)) {
    case 0: /* a bit */
        if (at < size)
            data[at] ^= (uint8_t)(1 << chance(8));
        return size;
    case 1: /* a byte, or a number's worth of them */
        for (count = (size_t)1 << chance(4); at < size && count > 0; at++, count--)
            data[at] = likely_byte();
        return size;
    case 2: /* less */
        if (count > size - at)
            count = size - at;
        memmove(data + at, data + at + count, size - at - count);
        return size - count;
    case 3: /* more */
        for (size_t i = 0; i < sizeof few; i++)
            few[i] = (char)likely_byte();
        return insert_at(data, size, at, few, count < sizeof few ? count : sizeof few);
    case 4: /* part of something else */
        count = (size_t)chance(other->size + 1);
        return insert_at(data, size, at, other->bytes + count, other->size - count);
    default: /* the front alone */
        return at;
    }
}

static void take(const uint8_t *data, size_t size) {
    /* A block of the exact size, so that the sanitizer sees a byte too far. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert(copy != NULL);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int take_file(const char *name) {
    static uint8_t data[1 << 20];
    FILE *file = fopen(name, "rb");
    if (file == NULL)
        return 1;
    take(data, fread(data, 1, sizeof data, file));
    return fclose(file) != 0;
}

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value == NULL ? otherwise : strtoull(value, NULL, 10);
}

static int fuzz(const char *name, const sample *samples, size_t count, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (take_file(argv[i]))
            return 1;
    if (argc > 1)
        return 0;
    uint64_t rounds = setting("PGREPL_FUZZ_ROUNDS", 100000), seed = setting("PGREPL_FUZZ_SEED", 1);
    chance_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    if (chance_state == 0)
        chance_state = 1;
    for (size_t i = 0; i < count; i++)
        take((const uint8_t *)samples[i].bytes, samples[i].size);
    for (uint64_t round = 0; round < rounds; round++) {
        uint8_t data[LONGEST];
        const sample *from = &samples[chance(count)];
        size_t size = insert_at(data, 0, 0, from->bytes, from->size);
        for (uint64_t change = chance(6); change > 0; change--)
            size = mutate(data, size, &samples[chance(count)]);
        take(data, size);
    }
    printf("%s: ok, %" PRIu64 " inputs of seed %" PRIu64 "\n", name, rounds, seed);
    return 0;
}

#define FUZZ(name, samples)                                                                        \
    int main(int argc, char **argv) {                                                              \
        return fuzz(name, samples, sizeof samples / sizeof samples[0], argc, argv);                \
    }

#else

#define FUZZ(name, samples)                                                                        \
    extern const sample *const pgr_samples;                                                        \
    const sample *const pgr_samples = samples;

#endif

#endif
