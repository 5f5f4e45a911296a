-- Records on their way to Kafka: written in the transaction of the row change, removed when Kafka has them.
-- Debezium's outbox columns (aggregatetype is the topic, aggregateid the key), plus the order to send them in.
CREATE TABLE public.outbox (
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL,
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    position bigserial NOT NULL UNIQUE
);
