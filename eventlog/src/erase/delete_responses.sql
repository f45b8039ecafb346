delete from idempotency_keys
where reader_id = $1
    and key in (
        select stored.key
        from idempotency_keys as stored
        cross join lateral unnest(stored.session_ids) as named (id)
        where stored.reader_id = $1 and named.id in (select unnest($2::text[]))
        union all
        -- A response of an earlier release does not name its sessions. Ids in it may be in
        -- upper case or without hyphens, as the client sent them.
        select stored.key
        from idempotency_keys as stored
        cross join lateral regexp_matches(
            stored.answer::text,
            '[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}',
            'g'
        ) as found (id)
        where stored.reader_id = $1 and stored.session_ids is null
            and lower(replace(found.id[1], '-', ''))
                in (select replace(unnest($2::text[]), '-', ''))
    )
