-- A reader's data leaves the log. What the log held of it is written over in
-- place, so that sequences and global positions keep no hole: every session
-- gets one event more, `SessionErased`, and then every event before that one
-- becomes a copy of it.

-- Where a reader's sessions are. Of all events only starts pay for it. Whoever
-- looks takes each session once: a log may hold a start twice that another build
-- wrote, and does not mean it.
create index events_by_reader on events ((payload ->> 'reader_id'), aggregate_id)
    where event_type = 'SessionStarted';

-- Which readers' data was erased, and how far that is. A row stays: after a
-- restore from a backup it says what must be erased again.
create table erasures (
    reader_id uuid primary key,
    -- When it was asked for last; from then on nothing is shown any more.
    erased_at timestamptz not null,
    -- Sessions erased, and events of them written over so far.
    sessions bigint not null,
    events bigint not null default 0,
    -- When the last event was written over; null while there are more.
    done_at timestamptz
);
create index erasures_open on erasures (erased_at) where done_at is null;
insert into jobs (job) values ('erasures');

-- As before, but for one thing: an event of a session that has been erased may
-- become a copy of the event that says so, in its own place.
create or replace function events_refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if new.event_type = 'SessionErased' and new.metadata::text = '{}'
            and (new.aggregate_id, new.sequence, new.global_position, new.aggregate_type, new.recorded_at)
                = (old.aggregate_id, old.sequence, old.global_position, old.aggregate_type, old.recorded_at)
            and exists (
                select from (
                    select event_type, event_version, payload from events
                    where aggregate_id = old.aggregate_id
                    order by sequence desc
                    limit 1
                ) as last
                where last.event_type = 'SessionErased'
                    and last.event_version = new.event_version
                    and last.payload::text = new.payload::text
            )
        then
            return new;
        end if;
    end if;
    raise exception 'events are append-only' using errcode = 'restrict_violation';
end $$;

-- Erases a reader: from here on nothing is known of any of the reader's
-- sessions, in any process, since each has an event more. `tombstone` is that
-- event, the same for all of them. Sessions that are erased already are passed
-- over, so it does no harm to ask twice.
--
-- All sessions at once: what projections have of the reader then goes at once
-- too. Returns how many there were, and the global position of the last event;
-- null when there were none.
create function erase_reader(
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
    -- Nobody appends until this is committed; whoever then does on what was
    -- before finds its sequence taken, or its claim gone.
    perform pg_advisory_xact_lock(7340001);
    with written as (
        insert into events (
            aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
        )
        select started.aggregate_id, last.sequence + 1, type_of_aggregate, 'SessionErased',
            version_of_event, tombstone::json, '{}'::json
        from (
            select distinct aggregate_id from events
            where event_type = 'SessionStarted' and payload ->> 'reader_id' = reader::text
        ) as started
        cross join lateral (
            select sequence, event_type from events
            where aggregate_id = started.aggregate_id
            order by sequence desc
            limit 1
        ) as last
        where last.event_type <> 'SessionErased'
        order by started.aggregate_id
        returning global_position
    )
    select count(*), max(global_position) into count_of_sessions, position_of_last from written;
    delete from claims where reader_id = reader;
    -- Answers tell what was answered.
    delete from idempotency_keys where reader_id = reader;
    if count_of_sessions > 0 then
        insert into erasures (reader_id, erased_at, sessions) values (reader, at, count_of_sessions)
        on conflict (reader_id) do update
        set erased_at = excluded.erased_at, sessions = erasures.sessions + excluded.sessions,
            done_at = null;
    end if;
    return query select count_of_sessions, position_of_last;
end $$;

-- Writes over events of a reader's erased sessions, at most `most` of them, and
-- returns how many; fewer than `most` were the last. A session is written over
-- from its end, since it is found by its start: so what was cut off goes on by
-- itself.
create function overwrite_events(reader uuid, most int) returns bigint
language plpgsql
-- See append_events.
set enable_seqscan = off
as $$
declare
    asked_at timestamptz;
    overwritten bigint;
begin
    -- Who does the same goes on after this, with what is left.
    perform pg_advisory_xact_lock(7340005, hashtext(reader::text));
    select erased_at into asked_at from erasures where reader_id = reader;
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
    -- Not the last, when the reader was erased once more since this began.
    update erasures
    set events = events + overwritten,
        done_at = case when overwritten < most and erased_at = asked_at then clock_timestamp() end
    where reader_id = reader and done_at is null;
    return overwritten;
end $$;
