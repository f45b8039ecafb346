-- How often a replay has taken the place of a projection's tables. A worker's
-- step names it beside the position: what it knows of dead letters is of the
-- tables of before, even where the position is the same.
alter table read.checkpoints add column replays bigint not null default 0;
