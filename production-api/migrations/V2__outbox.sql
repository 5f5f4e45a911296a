-- Transactional outbox: a row change and its Kafka record commit together.
-- The columns id, aggregatetype, aggregateid, type and payload are those of Debezium's outbox event router, so
-- that Debezium can take the relay's place (route.topic.replacement=${routedByValue}).

CREATE TABLE public.outbox (
    -- Order of publication within an aggregate. Gaps and late commits are normal: nothing may treat it as a cursor.
    position bigserial PRIMARY KEY,
    id uuid NOT NULL,
    -- The Kafka topic.
    aggregatetype varchar(255) NOT NULL,
    -- The Kafka key.
    aggregateid varchar(255) NOT NULL,
    -- written or deleted.
    type varchar(255) NOT NULL,
    -- json, not jsonb: it keeps the text byte for byte. Anything but an object would kill the topics' consumer.
    payload json NOT NULL CHECK (json_typeof(payload) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Set when Kafka refused the record for good; UPDATE both to NULL to have it tried again.
    refused_at timestamptz,
    refused_reason text
) WITH (
    -- A queue: rows live for milliseconds, so dead ones are cleared often.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000
);

CREATE INDEX outbox_pending ON public.outbox (position) WHERE refused_at IS NULL;

-- Who publishes now: one relay at a time, over all API processes.
CREATE TABLE public.outbox_relay (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder uuid,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO public.outbox_relay DEFAULT VALUES;
