-- `newest` is the greatest id that was drawn, `settled` the greatest up to which every id is committed or given up.
-- `newest` is read before the marks: a transaction whose mark is not seen there draws an id above it.
CREATE FUNCTION movement_horizon(OUT newest bigint, OUT settled bigint) LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    newest := newest_movement_id();
    settled := coalesce((SELECT min(mark) FROM movement_marks() AS mark), newest);
END $$;
