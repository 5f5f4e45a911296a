-- Telemetry ingest: what makes a repeated batch change nothing, and where records wait.

-- One row a gateway; its lock makes the batches of one gateway take turns.
CREATE TABLE public.telemetry_gateway (
    gateway varchar(128) PRIMARY KEY,
    highest_sequence bigint NOT NULL DEFAULT -1,
    -- The highest record id (UUID version 7, so the latest in time) that the gateway has sent.
    highest_record uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    last_batch_at timestamptz NOT NULL DEFAULT now()
);

-- Record ids that no row carries any more or never did: parts, materials, and units whose row was deleted.
-- A stored unit needs no entry: its row's primary key is the record id. Entries older than the ledger's
-- retention are trimmed.
CREATE TABLE public.telemetry_ledger (
    record_id uuid PRIMARY KEY,
    settled_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX telemetry_ledger_age ON public.telemetry_ledger (settled_at);

-- Records that are valid but cannot be stored yet, in the order of their arrival.
CREATE TABLE public.quarantine (
    position bigserial PRIMARY KEY,
    record_id uuid NOT NULL UNIQUE,
    gateway varchar(128) NOT NULL,
    sequence bigint NOT NULL,
    machine text NOT NULL,
    -- unknown_machine, unknown_part, missing_order, name_taken or expired.
    reason varchar(32) NOT NULL,
    detail text NOT NULL,
    -- Of units only.
    machine_id integer,
    part_id integer,
    received_at timestamptz NOT NULL,
    -- The shopfloor.v1.TelemetryRecord as it came.
    record bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX quarantine_unknown_machine ON public.quarantine (machine_id, position) WHERE reason = 'unknown_machine';
CREATE INDEX quarantine_unknown_part ON public.quarantine (part_id, position) WHERE reason = 'unknown_part';

-- A deleted unit leaves its record id in the ledger, whoever deletes it; else a repeated batch would bring the
-- unit back. Ids older than 30 days, the longest retention, are left out: clearing old units stays cheap.
CREATE FUNCTION public.telemetry_ledger_deleted_units() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.telemetry_ledger (record_id)
    SELECT id FROM deleted
    WHERE substr(id::text, 15, 1) = '7'
      -- The first 48 bits of a version 7 UUID are milliseconds since the Unix epoch.
      AND ('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint
          > extract(epoch FROM now() - interval '30 days') * 1000
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER supply_chain_deleted AFTER DELETE ON public.supply_chain
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION public.telemetry_ledger_deleted_units();
