-- Stored responses name their sessions, and appends take less processor time.

-- The sessions of which a stored response contains the state. A deletion of sessions then
-- finds the responses without reading them: that took seconds for a reader with 50 MB of
-- responses. Null for responses of the release before this one.
alter table idempotency_keys add column session_ids text[];

-- The arguments, the result and the refusals are those of before: processes of the release
-- before this one call it too. It also stores which sessions a response contains: those with
-- an event of the command, and those that the command has seen.
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
    claims_expected_newest timestamptz[],
    claims_next_newest timestamptz[],
    seen_commands int[],
    seen_sessions text[],
    seen_sequences bigint[],
    key_commands int[],
    key_readers uuid[],
    keys text[],
    fingerprints bytea[],
    answers text[]
) returns table (refused int[], positions bigint[])
language plpgsql security definer set search_path = public, pg_temp
-- A new partition has no statistics yet. The look-ups below must not be planned as
-- sequential scans, because the partition will contain millions of rows.
set enable_seqscan = off
-- Otherwise Postgres may estimate that a plan for the arguments of one call is cheaper than
-- the generic plan, and plans the look-up in every call of a small batch. Planning then
-- took a third of the time of a call with one event.
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    no int[] := '{}';
    more int[];
    written bigint[];
    first_id text collate "C";
    last_id text collate "C";
begin
    -- Before the look-ups: each statement of this function sees everything that was
    -- committed before the statement began. So a check under the lock stays true until
    -- this transaction is visible to the next holder.
    perform pg_advisory_xact_lock(7340001);

    -- With the range of the batch's sessions, the look-ups open only the partitions of the
    -- range, and otherwise all of them in each call.
    select min(named.id collate "C"), max(named.id collate "C") into first_id, last_id
    from unnest(session_ids || seen_sessions) as named (id);

    -- A session's first event in the batch follows the last one in the log, any other
    -- the one before it. A scalar subquery, so that it stays one index probe per
    -- session. The collation is that of the index, and the cheapest. The lower bound of
    -- the sequence changes no result: without a gap, the last event is the one before. A
    -- backward scan without it reads all events of the session on the page.
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
                and events.aggregate_id between first_id and last_id
                and events.sequence >= e.nth - 1
            order by events.sequence desc
            limit 1
        ),
        0
    );

    if cardinality(seen_commands) > 0 then
        no := no || (
            select coalesce(array_agg(s.command), '{}')
            from unnest(seen_commands, seen_sessions, seen_sequences) as s (command, session_id, nth)
            where s.nth is distinct from (
                select events.sequence from events
                where events.aggregate_id = s.session_id
                    and events.aggregate_id between first_id and last_id
                    and events.sequence >= s.nth
                order by events.sequence desc
                limit 1
            )
            -- An earlier command of the batch changes the session.
            or exists (
                select from unnest(event_commands, session_ids) as e (command, session_id)
                where e.session_id = s.session_id and e.command < s.command
            )
        );
    end if;

    if cardinality(claim_commands) > 0 then
        no := no || (
            select coalesce(array_agg(c.command), '{}')
            from (
                select *, row_number() over (partition by c.reader_id order by c.ordinal) as nth
                from unnest(claim_commands, claim_readers, claims_expected, claims_expected_newest)
                    with ordinality as c (command, reader_id, expected, expected_newest, ordinal)
            ) as c
            where c.nth > 1
            or (
                select claims.session_id from claims where claims.reader_id = c.reader_id
            ) is distinct from c.expected
            or c.expected is null and (
                select newest_observations.observed_at from newest_observations
                where newest_observations.reader_id = c.reader_id
            ) is distinct from c.expected_newest
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

    -- A command with an event after one of a refused command was decided on a state
    -- that will not exist.
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
        insert into idempotency_keys (reader_id, key, fingerprint, answer, session_ids)
        select k.reader_id, k.key, k.fingerprint, k.answer::json,
            coalesce(of_command.session_ids, '{}')
        from unnest(key_commands, key_readers, keys, fingerprints, answers)
            as k (command, reader_id, key, fingerprint, answer)
        left join (
            select named.command, array_agg(distinct named.session_id) as session_ids
            from (
                select * from unnest(event_commands, session_ids)
                union all
                select * from unnest(seen_commands, seen_sessions)
            ) as named (command, session_id)
            group by named.command
        ) as of_command on of_command.command = k.command
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
        from unnest(claim_commands, claim_readers, claims_expected, claims_next)
            as c (command, reader_id, expected, next)
        where c.next is not null and c.next is distinct from c.expected and c.command <> all (no)
        on conflict (reader_id) do update set session_id = excluded.session_id;
        insert into newest_observations (reader_id, observed_at)
        select c.reader_id, c.next_newest
        from unnest(claim_commands, claim_readers, claims_next_newest)
            as c (command, reader_id, next_newest)
        where c.next_newest is not null and c.command <> all (no)
        on conflict (reader_id) do update set observed_at = excluded.observed_at
            where newest_observations.observed_at < excluded.observed_at;
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
        -- Global positions are drawn in this order.
        order by e.ordinal
        returning global_position
    )
    select coalesce(array_agg(global_position order by global_position), '{}') into written
    from inserted;

    return query select no, written;
end $$;
