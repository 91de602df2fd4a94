"""How one service calls another: one class per callee over one HTTP base."""
