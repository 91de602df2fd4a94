-- A user without a balance row has no row to lock. A transaction that makes one holds this lock, shared;
-- `settle_new_balances` waits for it.
-- 5495873992008925183 is 0x4C454447 << 32, less one: next to the keys of `announce_movements`.
CREATE FUNCTION announce_new_balances() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock_shared(5495873992008925183) $$;
