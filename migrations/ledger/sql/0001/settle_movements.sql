-- Wait until every id up to `upto` that was drawn before the call is committed or given up. Marks are waited for in order,
-- so that two readers never wait in a circle; a writer waits for nothing after it has set its mark.
-- 5495873992008925184 is 0x4C454447 << 32, "LEDG": the key of this mark for id 0. Such keys end 2^48 above it.
CREATE FUNCTION settle_movements(upto bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE mark bigint;
BEGIN
    FOR mark IN SELECT m FROM movement_marks() AS m WHERE m < upto LOOP
        PERFORM pg_advisory_xact_lock(5495873992008925184 + mark);
    END LOOP;
END $$;
