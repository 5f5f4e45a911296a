-- Answers of writes that came with an Idempotency-Key, each stored in its write's own transaction. Rows older than
-- the configured retention are trimmed.
CREATE TABLE public.idempotency (
    -- SHA-256 of method, path, caller and key.
    scope bytea PRIMARY KEY,
    -- SHA-256 of the request's body.
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    entity_tag text,
    -- As it was answered; empty where there was none.
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX idempotency_age ON public.idempotency (created_at);
