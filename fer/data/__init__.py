"""Raw files → records → prepared folders → data modules."""
