"""Any number of rows through programs of few sizes, each of which compiles once."""


def rows_of_program(rows: int, fewest: int, most: int) -> int:
    """How many rows the program has that serves so many in one to four calls: 2, 8, 32, 128, ..., within limits.

    Parameters
    ----------
    rows
        How many are asked; the last call is filled up.
    fewest, most
        Of one program: powers of two.

    Examples
    --------
    >>> [rows_of_program(rows, 8, 512) for rows in (1, 31, 100, 129, 10_000)]
    [8, 8, 32, 128, 512]
    """
    return min(most, max(fewest, 1 << (max(rows.bit_length() - 2, 1) | 1)))
