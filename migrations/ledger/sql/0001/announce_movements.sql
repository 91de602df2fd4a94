-- Ids are drawn in one order and committed in another. A transaction that is about to draw one says so first: it takes
-- a shared lock named after the newest id there is. All ids up to the lowest such mark are decided; a mark is gone once
-- the ids drawn under it are visible.
-- 5495873992008925184 is 0x4C454447 << 32, "LEDG": the key of this mark for id 0. Such keys end 2^48 above it.
CREATE FUNCTION announce_movements() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock_shared(5495873992008925184 + newest_movement_id()) $$;
