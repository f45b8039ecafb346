//! The handlers. Commands append events, queries read, `privacy` exports and
//! erases a reader's data, and `admin` is the API for operators.

pub mod commands;
pub mod queries;

pub mod privacy;

pub mod admin;
