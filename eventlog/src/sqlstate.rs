//! Classes of Postgres error codes (SQLSTATE), grouped by the caller's next action.
//!
//! Only codes on which some caller acts have a variant; see appendix A of the
//! Postgres manual for all codes. This module makes no decision: callers match
//! on [`SqlState`].

/// The class of an error that the Postgres server returned. In every case the
/// server has rolled the statement back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlState {
    /// Class 22: a value is invalid, such as an unpaired surrogate in JSON.
    InvalidData,
    /// Class 23: a row violates a constraint, or no partition accepts it.
    ConstraintViolation,
    /// `serialization_failure` (40001). A replica also cancels a query with this
    /// code when the query conflicts with replay.
    SerializationFailure,
    /// `deadlock_detected` (40P01).
    Deadlock,
    /// Another code of class 40: the transaction was rolled back.
    TransactionRollback,
    /// `insufficient_privilege` (42501): the role lacks a right.
    NotPermitted,
    /// Another code of class 42: the statement is invalid, or a table is missing.
    InvalidStatement,
    /// `lock_not_available` (55P03): `lock_timeout` expired.
    LockNotAvailable,
    /// `query_canceled` (57014): `statement_timeout` expired, or an operator
    /// cancelled the query.
    QueryCanceled,
    /// Another code of class 57: the server is starting or shutting down, or an
    /// operator closed the connection.
    OperatorIntervention,
    /// Any other code, or none.
    Other,
}

impl SqlState {
    #[must_use]
    pub fn from_code(code: &str) -> Self {
        match code {
            "40001" => Self::SerializationFailure,
            "40P01" => Self::Deadlock,
            "42501" => Self::NotPermitted,
            "55P03" => Self::LockNotAvailable,
            "57014" => Self::QueryCanceled,
            _ => match code.get(..2) {
                Some("22") => Self::InvalidData,
                Some("23") => Self::ConstraintViolation,
                Some("40") => Self::TransactionRollback,
                Some("42") => Self::InvalidStatement,
                Some("57") => Self::OperatorIntervention,
                _ => Self::Other,
            },
        }
    }

    /// `None` if the server did not return the error, for example when the
    /// connection broke.
    #[must_use]
    pub fn from_error(error: &sqlx::Error) -> Option<Self> {
        let code = error.as_database_error()?.code();
        Some(Self::from_code(&code.unwrap_or_default()))
    }

    /// The data cannot be stored: a retry with the same data fails again.
    #[must_use]
    pub fn is_bad_data(self) -> bool {
        matches!(self, Self::InvalidData | Self::ConstraintViolation)
    }

    /// The statement did not get its locks: `lock_timeout` expired, or Postgres
    /// resolved a deadlock by failing this transaction.
    #[must_use]
    pub fn is_lock_failure(self) -> bool {
        matches!(self, Self::LockNotAvailable | Self::Deadlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_to_their_classes() {
        for (code, state) in [
            ("22P02", SqlState::InvalidData),
            ("23505", SqlState::ConstraintViolation),
            ("40001", SqlState::SerializationFailure),
            ("40P01", SqlState::Deadlock),
            ("40003", SqlState::TransactionRollback),
            ("42501", SqlState::NotPermitted),
            ("42P01", SqlState::InvalidStatement),
            ("55P03", SqlState::LockNotAvailable),
            ("55006", SqlState::Other),
            ("57014", SqlState::QueryCanceled),
            ("57P01", SqlState::OperatorIntervention),
            ("25006", SqlState::Other),
            ("", SqlState::Other),
        ] {
            assert_eq!(SqlState::from_code(code), state, "{code}");
        }
    }

    #[test]
    fn predicates_match_only_their_classes() {
        let is_bad_data = |code| SqlState::from_code(code).is_bad_data();
        assert!(is_bad_data("22021") && is_bad_data("23514") && !is_bad_data("42703"));
        let is_lock_failure = |code| SqlState::from_code(code).is_lock_failure();
        assert!(is_lock_failure("55P03") && is_lock_failure("40P01"));
        assert!(!is_lock_failure("40001") && !is_lock_failure("57014"));
    }

    #[test]
    fn errors_of_the_client_have_no_sqlstate() {
        assert_eq!(SqlState::from_error(&sqlx::Error::PoolTimedOut), None);
    }
}
