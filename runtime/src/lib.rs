//! What both servers stand on
