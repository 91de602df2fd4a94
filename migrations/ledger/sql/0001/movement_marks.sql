-- The marks that `announce_movements` has set in this database and whose transactions have not ended, in order.
-- 5495873992008925184 is 0x4C454447 << 32, "LEDG": the key of this mark for id 0. Such keys end 2^48 above it.
CREATE FUNCTION movement_marks() RETURNS SETOF bigint LANGUAGE sql VOLATILE AS
$$
    SELECT DISTINCT ((classid::bigint << 32) | objid::bigint) - 5495873992008925184
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) - 5495873992008925184 BETWEEN 0 AND 281474976710656
    ORDER BY 1
$$;
