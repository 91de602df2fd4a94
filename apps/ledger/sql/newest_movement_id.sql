-- The greatest id that was ever drawn, whether its transaction committed or not; 0 before the first.
CREATE FUNCTION newest_movement_id() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM movements_id_seq $$;
