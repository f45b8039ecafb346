-- Appends judge each command by the log and by what stands before it in its
-- batch, and partitions are made beside the traffic.

-- As before, with one answer for every way in which a command of a batch can
-- come too late: it is refused, whole, and leaves nothing. What it rests on
-- may be in the log or in a command before it in the batch:
--   a session's events follow its last one without a hole,
--   a reader's claim changes once a batch,
--   a key is used once.
-- A command that would have been good had one before it not been refused is
-- refused too; it is decided again, on what is then in the log.
--
-- All is judged before anything is written.
create or replace function append_events(
    event_commands int[],
    session_ids text[],
    sequences bigint[],
    aggregate_types text[],
    event_types text[],
    event_versions text[],
    payloads text[],
    metadatas text[],
    claim_commands int[],
    claim_readers uuid[],
    claims_expected text[],
    claims_next text[],
    key_commands int[],
    key_readers uuid[],
    keys text[],
    fingerprints bytea[],
    answers text[]
) returns table (refused int[], positions bigint[])
language plpgsql
-- A partition that is new has no statistics yet; the look-ups below must not
-- be planned as scans of what will be millions of rows.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    no int[] := '{}';
    more int[];
    written bigint[];
begin
    -- Before the look-ups: each statement of this function sees all that was
    -- committed before it began, so what is checked under the lock stays true
    -- until this transaction is visible to the next holder.
    perform pg_advisory_xact_lock(7340001);

    -- A session's first event in the batch follows the last one in the log, any
    -- other the one before it. A scalar subquery, so that it stays one index
    -- probe a session; the collation is that of the index, and the cheapest.
    select coalesce(array_agg(distinct e.command), '{}') into no
    from (
        select e.command, e.session_id, e.nth,
            lag(e.nth) over (partition by e.session_id collate "C" order by e.ordinal) as before
        from unnest(event_commands, session_ids, sequences) with ordinality
            as e (command, session_id, nth, ordinal)
    ) as e
    where e.nth <> 1 + coalesce(
        e.before,
        (
            select events.sequence from events
            where events.aggregate_id = e.session_id
            order by events.sequence desc
            limit 1
        ),
        0
    );

    if cardinality(claim_commands) > 0 then
        no := no || (
            select coalesce(array_agg(c.command), '{}')
            from (
                select *, row_number() over (partition by c.reader_id order by c.ordinal) as nth
                from unnest(claim_commands, claim_readers, claims_expected) with ordinality
                    as c (command, reader_id, expected, ordinal)
            ) as c
            where c.nth > 1 or (
                select claims.session_id from claims where claims.reader_id = c.reader_id
            ) is distinct from c.expected
        );
    end if;

    if cardinality(key_commands) > 0 then
        no := no || (
            select coalesce(array_agg(k.command), '{}')
            from (
                select *, row_number() over (partition by k.reader_id, k.key order by k.ordinal) as nth
                from unnest(key_commands, key_readers, keys) with ordinality
                    as k (command, reader_id, key, ordinal)
            ) as k
            where k.nth > 1 or (
                select true from idempotency_keys
                where idempotency_keys.reader_id = k.reader_id and idempotency_keys.key = k.key
            )
        );
    end if;

    -- Who follows a refused command in one of its sessions stands on nothing.
    while cardinality(no) > 0 loop
        select array_agg(distinct later.command) into more
        from unnest(event_commands, session_ids) with ordinality
            as refused (command, session_id, ordinal)
        join unnest(event_commands, session_ids) with ordinality
            as later (command, session_id, ordinal)
            on later.session_id = refused.session_id and later.ordinal > refused.ordinal
        where refused.command = any (no) and later.command <> all (no);
        exit when more is null;
        no := no || more;
    end loop;

    if cardinality(key_commands) > 0 then
        insert into idempotency_keys (reader_id, key, fingerprint, answer)
        select k.reader_id, k.key, k.fingerprint, k.answer::json
        from unnest(key_commands, key_readers, keys, fingerprints, answers)
            as k (command, reader_id, key, fingerprint, answer)
        where k.command <> all (no);
    end if;

    if cardinality(claim_commands) > 0 then
        delete from claims
        using unnest(claim_commands, claim_readers, claims_next) as c (command, reader_id, next)
        where claims.reader_id = c.reader_id
            and c.next is null
            and c.command <> all (no);
        insert into claims (reader_id, session_id)
        select c.reader_id, c.next
        from unnest(claim_commands, claim_readers, claims_next) as c (command, reader_id, next)
        where c.next is not null and c.command <> all (no)
        on conflict (reader_id) do update set session_id = excluded.session_id;
    end if;

    with inserted as (
        insert into events (
            aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
        )
        select e.session_id, e.nth, e.aggregate_type, e.event_type, e.event_version,
            e.payload::json, e.metadata::json
        from unnest(
            event_commands, session_ids, sequences, aggregate_types, event_types, event_versions,
            payloads, metadatas
        ) with ordinality
            as e (command, session_id, nth, aggregate_type, event_type, event_version, payload,
                metadata, ordinal)
        where e.command <> all (no)
        -- Positions are drawn in this order.
        order by e.ordinal
        returning global_position
    )
    select coalesce(array_agg(global_position order by global_position), '{}') into written
    from inserted;

    return query select no, written;
end $$;

-- As before, but nobody waits for it: a partition is made as a table of its own
-- and then attached, which takes a lock that readers and writers of the parent
-- do not mind. `create table ... partition of` locks them all out, and waits for
-- the longest of them first.
create or replace function create_month_partitions(parent regclass, ahead int) returns int
language plpgsql as $$
declare
    month date;
    partition text;
    created int := 0;
begin
    perform pg_advisory_xact_lock(7340003);
    for month in
        select generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '2 months',
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead),
            interval '1 month'
        )::date
    loop
        -- Beside its parent, whatever the connection looks into first.
        select format('%s.%I', relnamespace::regnamespace, relname || to_char(month, '"_"YYYY"_"MM'))
        into partition from pg_class where oid = parent;
        if to_regclass(partition) is null then
            execute format('create table %s (like %s including all)', partition, parent);
            if parent = 'events'::regclass then
                -- Row triggers come with the attachment, statement triggers do not.
                execute format(
                    'create trigger events_order before insert on %s
                        for each statement execute function events_take_order_lock()', partition);
                execute format(
                    'create trigger events_no_truncate before truncate on %s
                        for each statement execute function events_refuse_change()', partition);
            end if;
            execute format(
                'alter table %s attach partition %s for values from (%L) to (%L)',
                parent, partition, month_bound(month), month_bound((month + interval '1 month')::date)
            );
            created := created + 1;
        end if;
    end loop;
    return created;
end $$;
