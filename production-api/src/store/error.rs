//! What can go wrong between the API and Postgres.

use std::time::Duration;

use deadpool_postgres::{BuildError, PoolError};
use tokio_postgres::error::SqlState;

use crate::error::{Error, chain};

/// A failure of the store. Nothing of it is for a client's eyes.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no connection to Postgres")]
    Pool(#[from] PoolError),
    #[error("the pool's settings are wrong")]
    Build(#[from] BuildError),
    #[error("Postgres refused a statement")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("a record could not be written as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("Postgres did not answer within {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("the migrations failed")]
    Migration(#[source] Box<refinery::Error>),
    #[error("a stored record cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pool(_) | Self::Silent(_) => "postgres_unavailable",
            Self::Build(_) => "pool_settings",
            Self::Postgres(_) if self.is_temporary() => "postgres_unavailable",
            Self::Postgres(_) => "postgres_refused",
            Self::Encode(_) => "encode",
            Self::Unexpected(_) => "unexpected",
            Self::Migration(_) => "migration",
            Self::Corrupt(_) => "corrupt",
        }
    }

    /// True where the same request can succeed later: Postgres is down, restarting, full or too slow, or two
    /// transactions stood in each other's way.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Silent(_) => true,
            Self::Build(_)
            | Self::Encode(_)
            | Self::Unexpected(_)
            | Self::Migration(_)
            | Self::Corrupt(_) => false,
            Self::Postgres(error) => match error.code() {
                None => {
                    error.is_closed()
                        || std::error::Error::source(error).is_some_and(|e| e.is::<std::io::Error>())
                }
                Some(code) => {
                    // 08 connection, 53 resources, 57 operator intervention.
                    let class = code.code().get(..2).unwrap_or_default();
                    matches!(class, "08" | "53" | "57")
                        || *code == SqlState::T_R_SERIALIZATION_FAILURE
                        || *code == SqlState::T_R_DEADLOCK_DETECTED
                }
            },
        }
    }

    /// True where two transactions waited for each other and this one was chosen to give way.
    pub fn is_deadlock(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED))
    }

    /// The constraint that a statement violated, where one did.
    pub fn violated(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.as_db_error()?.constraint(),
            _ => None,
        }
    }

    /// This error and its sources on one line.
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store {
            kind: error.kind(),
            is_temporary: error.is_temporary(),
            source: Box::new(error),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}
