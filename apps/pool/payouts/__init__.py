"""Money out and in, asked for at the pool: payouts, the addresses they may go to, and deposits by their transactions."""
