"""``pgrepl doctor``: what `pgrepl.doctor` finds, shown."""
