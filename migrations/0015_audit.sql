-- The actions of operators, over HTTP and on the command line.

-- No role may write this table: only the functions below do, so a row cannot be removed, and
-- not be changed once its outcome is known. Nothing deletes old rows: only operators add some.
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    -- The subject of the token, or `user@host` of the command line.
    actor text not null,
    -- The role of Postgres. Unlike the actor of the command line, a caller cannot choose it.
    role text not null default session_user,
    origin text not null constraint audit_origin check (origin in ('http', 'cli')),
    action text not null,
    target text,
    details jsonb not null default '{}',
    outcome text not null default 'started'
        constraint audit_outcome check (outcome in ('started', 'succeeded', 'failed')),
    ended_at timestamptz,
    error text
);

-- Begins an entry, before the action. An action that takes effect therefore has one, also if
-- its process is killed.
create function audit_begin(
    actor text, origin text, action text, target text, details jsonb
) returns bigint
language sql security definer set search_path = public, pg_temp
as $$
    insert into audit (actor, origin, action, target, details)
    values (actor, origin, action, target, details)
    returning id
$$;

-- Ends an entry of the same role, once.
create function audit_end(entry bigint, outcome text, error text, details jsonb) returns void
language sql security definer set search_path = public, pg_temp
as $$
    update audit
    set outcome = audit_end.outcome, ended_at = clock_timestamp(), error = audit_end.error,
        details = audit.details || audit_end.details
    where id = entry and audit.outcome = 'started' and role = session_user
$$;

-- `migrate` removes this right too, but only if it may create roles.
revoke execute on function audit_begin, audit_end from public;
