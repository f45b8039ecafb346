-- Ids in responses may be in upper case or without hyphens, as the client sent them. One
-- pass over the responses, and a hash of the ids.
delete from idempotency_keys
where reader_id = $1
    and key in (
        select stored.key
        from idempotency_keys as stored
        cross join lateral regexp_matches(
            stored.answer::text,
            '[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}',
            'g'
        ) as found (id)
        where stored.reader_id = $1
            and lower(replace(found.id[1], '-', '')) in (select unnest($2::text[]))
    )
