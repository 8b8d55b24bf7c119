-- A part of a statement: as `wanted`, but there is nothing in it before `ended` is complete. What has
-- just been removed is passed over then, also if its lease has run out.
wanted AS (
    SELECT queue, place
    FROM
        (SELECT count(*) FROM ended) AS settled,
        unnest(%(queues)b::text[]) WITH ORDINALITY AS wanted (queue, place)
)
