//! The controllers: read the body, then the id, run the store's operation, answer.

pub(crate) mod machines;
pub(crate) mod materials;
pub(crate) mod mqtt;
pub(crate) mod parts;
pub(crate) mod prices;
pub(crate) mod units;

use axum::response::Response;

use crate::error::Error;

type Answer = Result<Response, Error>;
