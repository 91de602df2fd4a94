-- The guard of what must never change. The code is its own, by which a service's proof at start knows it
-- (apps/common/append_only.py).
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% of % is refused: it is kept for ever, unchanged', TG_OP, TG_TABLE_NAME USING ERRCODE = 'AO001'; END $$;
