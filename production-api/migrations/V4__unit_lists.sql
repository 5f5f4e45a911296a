-- Keyset pages and filters of GET /supply-chain: by time, by machine and time, by part and time. The last two also
-- spare a deletion of a machine or part, which looks for units that refer to it, the walk over all units.
--
-- Building an index blocks writes to its table for as long as it takes. On a database with many units, build them
-- beforehand by hand, one after the other, with CREATE INDEX CONCURRENTLY under these names: each statement below
-- changes nothing where the index is there already.

CREATE INDEX IF NOT EXISTS supply_chain_by_time ON public.supply_chain ("timeOfProduction", id);
CREATE INDEX IF NOT EXISTS supply_chain_by_machine ON public.supply_chain ("machineId", "timeOfProduction", id);
CREATE INDEX IF NOT EXISTS supply_chain_by_part ON public.supply_chain ("partId", "timeOfProduction", id);
