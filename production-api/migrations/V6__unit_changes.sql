-- Which units changed, for GET /supply-chain/stream: whoever writes them, the API, a gateway's batch, the original or
-- a person, a trigger notes their ids, one row for up to 250 of a statement. Trimmed after a retention time.

CREATE TABLE public.unit_change (
    -- The transaction that wrote. Readers go in this order, up to the oldest that is still under way: a position is
    -- given out long before its commit, and a reader that went by it alone would pass over whoever commits late.
    transaction bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    position bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    unit_ids uuid[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction, position)
) WITH (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

-- The last transaction whose changes were trimmed: who has not read on from there has missed some.
CREATE TABLE public.unit_change_floor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    transaction bigint NOT NULL DEFAULT 0
);

INSERT INTO public.unit_change_floor DEFAULT VALUES;

CREATE FUNCTION public.unit_changes() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.unit_change (unit_ids)
    SELECT array_agg(id ORDER BY number)
    FROM (SELECT id, row_number() OVER () - 1 AS number FROM changed) AS numbered
    GROUP BY number / 250
    ORDER BY number / 250;
    RETURN NULL;
END
$$;

CREATE TRIGGER unit_changes_inserted AFTER INSERT ON public.supply_chain
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();

CREATE TRIGGER unit_changes_updated AFTER UPDATE ON public.supply_chain
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();

CREATE TRIGGER unit_changes_deleted AFTER DELETE ON public.supply_chain
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION public.unit_changes();
