-- Wait until no transaction is under way that makes a balance row (`announce_new_balances`).
-- 5495873992008925183 is 0x4C454447 << 32, less one: next to the keys of `announce_movements`.
CREATE FUNCTION settle_new_balances() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock(5495873992008925183) $$;
