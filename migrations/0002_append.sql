-- Appends a batch of commands in one round trip and one transaction. The
-- commands of a batch do not know of each other: one that conflicts is refused
-- whole and leaves nothing, its neighbours are written.
--
-- Arrays of equal length describe the events, the claims and the keys; each
-- element names the command it belongs to. `claims_expected` is the session
-- that the command found active (null: none), `claims_next` the one that is
-- active after it (null: none).
--
-- Returns the commands that were refused, and the global positions of the
-- events of all others, in the order given.
create function append_events(
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
    written bigint[];
begin
    -- Before the look-ups: each statement of this function sees all that was
    -- committed before it began, so what is checked under the lock stays true
    -- until this transaction is visible to the next holder.
    perform pg_advisory_xact_lock(7340001);

    -- A scalar subquery, so that it stays one index probe a row.
    select coalesce(array_agg(distinct e.command), '{}') into no
    from unnest(event_commands, session_ids, sequences) as e (command, session_id, nth)
    where (
        select true from events
        where events.aggregate_id = e.session_id and events.sequence = e.nth
    );

    if cardinality(claim_commands) > 0 then
        no := no || (
            select coalesce(array_agg(c.command), '{}')
            from unnest(claim_commands, claim_readers, claims_expected)
                as c (command, reader_id, expected)
            where (
                select claims.session_id from claims where claims.reader_id = c.reader_id
            ) is distinct from c.expected
        );
        delete from claims
        using unnest(claim_commands, claim_readers, claims_next) as c (command, reader_id, next)
        where claims.reader_id = c.reader_id
            and c.next is null
            and c.command <> all (no);
    end if;

    if cardinality(key_commands) > 0 then
        no := no || (
            select coalesce(array_agg(k.command), '{}')
            from unnest(key_commands, key_readers, keys) as k (command, reader_id, key)
            where (
                select true from idempotency_keys
                where idempotency_keys.reader_id = k.reader_id and idempotency_keys.key = k.key
            )
        );
        insert into idempotency_keys (reader_id, key, fingerprint, answer)
        select k.reader_id, k.key, k.fingerprint, k.answer::json
        from unnest(key_commands, key_readers, keys, fingerprints, answers)
            as k (command, reader_id, key, fingerprint, answer)
        where k.command <> all (no);
    end if;

    if cardinality(claim_commands) > 0 then
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
