-- The guard of a loss that is being settled: until it has reached every position, the index stands still. What came later
-- would else be shared out by weights that the loss has still to lower.
CREATE FUNCTION hold_index() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'The index of % stands still until its loss is settled', OLD.pool_id USING ERRCODE = 'RW001'; END $$;
