"""Reference values that the tests of a bundle compare with."""
