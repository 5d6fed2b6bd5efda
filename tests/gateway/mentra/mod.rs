//! MentraOS clients.

mod glasses;
