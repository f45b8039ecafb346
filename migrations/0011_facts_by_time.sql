-- Facts by their time: which session is active, and what a session contains, follows
-- from the times of the observations and not from the order of their arrival.

-- A reader's newest observation outside the active session: of a session that the
-- reader ended, or that became idle. A late start that is older than it must not
-- become active. The claim contains no such time, because it is deleted at the end of
-- the active session. No row: no such observation is known.
create table newest_observations (
    reader_id uuid primary key,
    observed_at timestamptz not null
) with (fillfactor = 70);

-- Like the function of the same name in 0005, with two more kinds of check. The release
-- before this one calls that function, so it stays as it is. A later migration drops it,
-- when no process of that release runs.
--
-- `claims_expected_newest` is the reader's row in `newest_observations` that the
-- decision assumes (null: none). It is checked only if no session is expected to be active:
-- the active session has the newest observation of all, so its own events decide.
-- `claims_next_newest` raises the row (null: unchanged). A change of a claim to the same
-- session only checks the claim.
--
-- `seen_sessions` are sessions that get no event from the command, although its response
-- contains their state. Their last event must be the one that the command has seen. So
-- the response is not stored if the session was erased in the meantime.
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
language plpgsql
-- A new partition has no statistics yet. The look-ups below must not be planned as
-- sequential scans, because the partition will contain millions of rows.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    no int[] := '{}';
    more int[];
    written bigint[];
begin
    -- Before the look-ups: each statement of this function sees everything that was
    -- committed before the statement began. So a check under the lock stays true until
    -- this transaction is visible to the next holder.
    perform pg_advisory_xact_lock(7340001);

    -- A session's first event in the batch follows the last one in the log, any other
    -- the one before it. A scalar subquery, so that it stays one index probe per
    -- session. The collation is that of the index, and the cheapest.
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

    if cardinality(seen_commands) > 0 then
        no := no || (
            select coalesce(array_agg(s.command), '{}')
            from unnest(seen_commands, seen_sessions, seen_sequences) as s (command, session_id, nth)
            where s.nth is distinct from (
                select events.sequence from events
                where events.aggregate_id = s.session_id
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

-- Readers also delete single sessions. After a restore from a backup, the operator must
-- repeat both kinds of erasure, so the tables must distinguish them.

-- When all sessions of the reader were erased for the last time. Null: only single
-- sessions were erased. `erased_at` is the time of the last erasure of either kind.
alter table erasures add column all_erased_at timestamptz;
update erasures set all_erased_at = erased_at;

-- Sessions that were erased one by one.
create table erased_sessions (
    session_id text collate "C" primary key,
    reader_id uuid not null,
    erased_at timestamptz not null
);
create index erased_sessions_by_reader on erased_sessions (reader_id);

-- Appends `tombstone` to each of the given sessions that is not erased yet. The caller holds
-- the order lock. Returns the ids of these sessions, and the global position of the last
-- event; null when there were none.
create function append_tombstones(
    ids text[],
    type_of_aggregate text,
    version_of_event text,
    tombstone text
) returns table (erased text[], last_position bigint)
language plpgsql
-- See append_events.
set enable_seqscan = off
as $$
begin
    return query
    with written as (
        insert into events (
            aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
        )
        select asked.session_id, last.sequence + 1, type_of_aggregate, 'SessionErased',
            version_of_event, tombstone::json, '{}'::json
        from (select distinct id.session_id from unnest(ids) as id (session_id)) as asked
        cross join lateral (
            select events.sequence, events.event_type from events
            where events.aggregate_id = asked.session_id
            order by sequence desc
            limit 1
        ) as last
        where last.event_type <> 'SessionErased'
        order by asked.session_id
        returning aggregate_id, global_position
    )
    select coalesce(array_agg(aggregate_id), '{}'), max(global_position) from written;
end $$;

-- As before. It also deletes the reader's newest observation, and records that all
-- sessions are erased.
create or replace function erase_reader(
    reader uuid,
    at timestamptz,
    type_of_aggregate text,
    version_of_event text,
    tombstone text
) returns table (sessions bigint, last_position bigint)
language plpgsql
-- See append_events.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    count_of_sessions bigint;
    position_of_last bigint;
begin
    -- No command is appended until this is committed. A command that was decided on the
    -- earlier state then conflicts: its sequence is used, or its claim is gone.
    perform pg_advisory_xact_lock(7340001);
    select cardinality(appended.erased), appended.last_position
    into count_of_sessions, position_of_last
    from append_tombstones(
        array(
            select distinct aggregate_id from events
            where event_type = 'SessionStarted' and payload ->> 'reader_id' = reader::text
        ),
        type_of_aggregate,
        version_of_event,
        tombstone
    ) as appended;
    delete from claims where reader_id = reader;
    delete from newest_observations where reader_id = reader;
    -- Stored responses contain the reader's data.
    delete from idempotency_keys where reader_id = reader;
    if count_of_sessions > 0 then
        insert into erasures (reader_id, erased_at, all_erased_at, sessions)
        values (reader, at, at, count_of_sessions)
        on conflict (reader_id) do update
        set erased_at = excluded.erased_at, all_erased_at = excluded.all_erased_at,
            sessions = erasures.sessions + excluded.sessions, done_at = null;
    end if;
    return query select count_of_sessions, position_of_last;
end $$;

-- Erases some of a reader's sessions, in one transaction: projections then remove all of
-- them together. It appends `tombstone` to each session that belongs to the reader and is
-- not erased yet, and skips the others. A repeat is safe. Stored responses that contain
-- the sessions must be deleted afterwards.
--
-- The reader's row in `newest_observations` stays, even if its time is that of an erased
-- session. If the active session is erased, the row is raised to that session's newest
-- observation. Otherwise a late start could become active although it is older than a
-- session that the erased one superseded.
--
-- Returns how many sessions it erased, and the global position of the last event; null
-- when there were none. `overwrite_events` must follow.
create function erase_sessions(
    reader uuid,
    ids text[],
    at timestamptz,
    type_of_aggregate text,
    version_of_event text,
    tombstone text
) returns table (sessions bigint, last_position bigint)
language plpgsql
-- See append_events.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    erased text[];
    position_of_last bigint;
begin
    -- As in erase_reader.
    perform pg_advisory_xact_lock(7340001);
    select appended.erased, appended.last_position into erased, position_of_last
    from append_tombstones(
        array(
            select id.session_id from unnest(ids) as id (session_id)
            where (
                select true from events
                where event_type = 'SessionStarted' and payload ->> 'reader_id' = reader::text
                    and aggregate_id = id.session_id
                limit 1
            )
        ),
        type_of_aggregate,
        version_of_event,
        tombstone
    ) as appended;
    if position_of_last is not null then
        with released as (
            delete from claims where reader_id = reader and session_id = any (erased)
            returning session_id
        )
        insert into newest_observations (reader_id, observed_at)
        select reader, max(observed.at::timestamptz)
        from released
        join events on events.aggregate_id = released.session_id
        -- The time is cut out of the text of the payload: JSON strings may contain NUL, which
        -- Postgres cannot convert to text. The match is exact, because quotes inside a JSON
        -- string are escaped, only a key is followed by a colon, and the service writes no
        -- spaces.
        cross join lateral (
            select split_part(
                split_part(
                    events.payload::text,
                    case events.event_type
                        when 'SessionStarted' then '"started_at":'
                        else '"occurred_at":'
                    end,
                    2
                ),
                '"',
                2
            ) as at
        ) as observed
        where events.event_type in ('SessionStarted', 'PositionUpdated')
            and observed.at ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$'
        having count(*) > 0
        on conflict (reader_id) do update set observed_at = excluded.observed_at
            where newest_observations.observed_at < excluded.observed_at;
        insert into erased_sessions (session_id, reader_id, erased_at)
        select id, reader, at from unnest(erased) as id
        on conflict (session_id) do update set erased_at = excluded.erased_at;
        insert into erasures (reader_id, erased_at, sessions)
        values (reader, at, cardinality(erased))
        on conflict (reader_id) do update
        set erased_at = excluded.erased_at, sessions = erasures.sessions + excluded.sessions,
            done_at = null;
    end if;
    return query select cardinality(erased)::bigint, position_of_last;
end $$;

-- As before, with another way to detect that sessions of the reader were erased during
-- the call: `sessions` grows with every erasure, but two erasures of single sessions can
-- have the same `erased_at`.
create or replace function overwrite_events(reader uuid, most int) returns bigint
language plpgsql
-- See append_events.
set enable_seqscan = off
as $$
declare
    erased_before bigint;
    overwritten bigint;
begin
    -- A second call for the same reader waits here, and then overwrites the rest.
    perform pg_advisory_xact_lock(7340005, hashtext(reader::text));
    select sessions into erased_before from erasures where reader_id = reader;
    with erased as (
        select started.aggregate_id, last.event_version, last.payload
        from (
            select distinct aggregate_id from events
            where event_type = 'SessionStarted' and payload ->> 'reader_id' = reader::text
        ) as started
        cross join lateral (
            select event_type, event_version, payload from events
            where aggregate_id = started.aggregate_id
            order by sequence desc
            limit 1
        ) as last
        where last.event_type = 'SessionErased'
        order by started.aggregate_id
        limit most
    ),
    found as (
        select e.aggregate_id, e.sequence, erased.event_version, erased.payload
        from erased
        join events as e on e.aggregate_id = erased.aggregate_id
        where e.event_type <> 'SessionErased'
        order by e.aggregate_id, e.sequence desc
        limit most
    )
    update events
    set event_type = 'SessionErased', event_version = found.event_version,
        payload = found.payload, metadata = '{}'
    from found
    where events.aggregate_id = found.aggregate_id and events.sequence = found.sequence;
    get diagnostics overwritten = row_count;
    update erasures
    set events = events + overwritten,
        done_at = case
            when overwritten < most and sessions = erased_before then clock_timestamp()
        end
    where reader_id = reader and done_at is null;
    return overwritten;
end $$;

-- The oldest version of the time zone rules, for example 2026f, that has computed rows of
-- the projection since its last replay. Null: the rows do not depend on time zones.
-- Versions are ordered like texts. `doctor` compares it with the rules of the machine.
alter table read.checkpoints add column tzdata text collate "C";

-- Statistics by session and reading day, instead of by reader. A row contains the
-- intervals of active time, so what overlaps counts once, in whatever order it arrives.
-- One row per session, so that a session can be removed or corrected without reading the
-- log (decision 0021).
--
-- Expand and contract: the new table replaces `reader_days` and `reader_hours`. The release
-- before this one still queries those two, so a later migration drops them.
create table read.session_days (
    session_id text collate "C" not null,
    -- A day of `time_zone`, which is that of the session.
    day date not null,
    reader_id uuid not null,
    time_zone text not null,
    active tstzmultirange not null,
    -- The last observation of the day, even if it is after the reader's end.
    last_at timestamptz,
    position int,
    -- The reader's end of the session, if it is on the day. Apart from the observations, so
    -- that a correction can move it.
    ended_at timestamptz,
    -- The position at the end. Null: it is that of the day before. The time is that of its
    -- observation; null: the end has a position of its own.
    end_position int,
    end_position_at timestamptz,
    -- The start position of the session. Null: the projection skipped the event that
    -- contains it.
    start_position int,
    -- From the last position before the day to the last one of the day, in
    -- ten-thousandths of a percent of a book.
    progress bigint not null,
    -- Whether it is the last day of a session that has ended, finally or provisionally.
    ended boolean not null,
    -- Whether the reader's end is on an earlier day. The row then counts nowhere, until a
    -- correction moves the end.
    after_end boolean not null,
    primary key (session_id, day)
) with (fillfactor = 70);
create index session_days_by_reader on read.session_days (reader_id, day);

-- Workers of the release before this one write the old tables under the same checkpoint.
-- They must not move it: the events would then be missing in the new table. Only their
-- commits need this column. They fail, and are repeated until the processes are replaced.
alter table read.reader_days drop column time_zone_position;

-- The projection rebuilds its tables from the log. Until then statistics are incomplete,
-- also those of the release before this one. Nothing removes erased readers from the old
-- tables, so these must not contain any.
truncate read.reader_days, read.reader_hours, read.days;
delete from read.checkpoints where projection = 'daily_stats';

-- The time of the observation that `position` is from; null if it is `last_activity_at`.
-- The two differ if the reader ended the session without a position. Nullable and
-- without a default, so that no row is rewritten.
alter table read.history add column position_at timestamptz;
