WITH patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
)
DELETE FROM {results} USING patience WHERE key = ANY (%(keys)s::text[])
