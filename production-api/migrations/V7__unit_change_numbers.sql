-- Places in the stream of units that hold over a crash and a restored backup, and that no open transaction holds up.
--
-- V6 went by the numbers of transactions. Those that leave nothing on disk are given out again after a crash, and
-- every transaction of the cluster had to end first. From here on changes are numbered once they are committed. What
-- V6 kept, a quarter of an hour of changes, is let go: clients that come back with a place of then are told so. No
-- release has V6, so its tables need not outlive it.

DROP TRIGGER unit_changes_inserted ON public.supply_chain;
DROP TRIGGER unit_changes_updated ON public.supply_chain;
DROP TRIGGER unit_changes_deleted ON public.supply_chain;
DROP FUNCTION public.unit_changes();
DROP TABLE public.unit_change, public.unit_change_floor;

-- One row for up to 250 units of a statement; one without units says that all are gone.
CREATE TABLE public.unit_change (
    position bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    unit_ids uuid[] NOT NULL,
    -- What the units were of until then, for streams of one machine or part; null where they are new.
    machine_ids integer[],
    part_ids integer[],
    -- The order in which readers go.
    number bigint UNIQUE,
    -- Made up along with the number: where another history has the same number, the mark is another one.
    mark uuid,
    numbered_at timestamptz,
    CHECK (num_nulls(number, mark, numbered_at) IN (0, 3))
) WITH (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

CREATE INDEX unit_change_unnumbered ON public.unit_change (position) WHERE number IS NULL;

CREATE TABLE public.unit_change_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The last number that was given.
    number bigint NOT NULL DEFAULT 0,
    mark uuid NOT NULL,
    -- The last number whose row was trimmed: who has not read on from there has missed some.
    floor bigint NOT NULL DEFAULT 0,
    floor_mark uuid NOT NULL
);

INSERT INTO public.unit_change_head (mark, floor_mark) SELECT mark, mark FROM gen_random_uuid() AS mark;

-- Numbers what was committed since the last time, and says how many rows that were. One caller at a time, and its
-- lock is released behind its commit: who sees a number sees all that are lower.
CREATE FUNCTION public.number_unit_changes() RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    given bigint;
    new_mark uuid := gen_random_uuid();
BEGIN
    -- Spares quiet times the lock, which writes.
    IF NOT EXISTS (SELECT FROM public.unit_change WHERE number IS NULL) THEN
        RETURN 0;
    END IF;
    -- Whoever holds it is doing this.
    SELECT number INTO last FROM public.unit_change_head FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- What a client was told must be there after a crash; the flush takes the changes along.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    UPDATE public.unit_change
    SET number = last + pending.place, mark = new_mark, numbered_at = now()
    FROM (
        SELECT first.position, row_number() OVER (ORDER BY first.position) AS place
        FROM (
            SELECT position FROM public.unit_change WHERE number IS NULL ORDER BY position LIMIT 1000
        ) AS first
    ) AS pending
    WHERE unit_change.position = pending.position;
    GET DIAGNOSTICS given = ROW_COUNT;
    UPDATE public.unit_change_head SET number = last + given, mark = new_mark WHERE given > 0;
    RETURN given;
END
$$;

-- As the tables' owner: whoever may write units needs no right to write here.
CREATE FUNCTION public.unit_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        INSERT INTO public.unit_change (unit_ids, machine_ids, part_ids)
        SELECT array_agg(id ORDER BY number), array_agg("machineId" ORDER BY number), array_agg("partId" ORDER BY number)
        FROM (SELECT *, row_number() OVER () - 1 AS number FROM was) AS numbered
        GROUP BY number / 250
        ORDER BY number / 250;
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.unit_change (unit_ids)
        SELECT array_agg(id ORDER BY number)
        FROM (SELECT id, row_number() OVER () - 1 AS number FROM written) AS numbered
        GROUP BY number / 250
        ORDER BY number / 250;
    ELSIF TG_OP = 'UPDATE' THEN
        -- Ids that a statement made of others.
        INSERT INTO public.unit_change (unit_ids)
        SELECT array_agg(id ORDER BY number)
        FROM (
            SELECT id, row_number() OVER () - 1 AS number
            FROM (SELECT id FROM written EXCEPT SELECT id FROM was) AS fresh
        ) AS numbered
        GROUP BY number / 250
        ORDER BY number / 250;
    ELSIF TG_OP = 'TRUNCATE' THEN
        INSERT INTO public.unit_change (unit_ids) VALUES ('{}');
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER unit_changes_inserted AFTER INSERT ON public.supply_chain
    REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();

CREATE TRIGGER unit_changes_updated AFTER UPDATE ON public.supply_chain
    REFERENCING OLD TABLE AS was NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();

CREATE TRIGGER unit_changes_deleted AFTER DELETE ON public.supply_chain
    REFERENCING OLD TABLE AS was
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();

CREATE TRIGGER unit_changes_truncated AFTER TRUNCATE ON public.supply_chain
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();
