-- A part of a statement: the queues to claim from, for `due`.
wanted AS (
    SELECT queue, place FROM unnest(%(queues)b::text[]) WITH ORDINALITY AS wanted (queue, place)
)
