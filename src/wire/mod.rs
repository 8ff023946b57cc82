//! Bytes at the edges. What is written for good (the log's JSON), what lives for a moment (feed,
//! questions), and what visitors see (socket), each versioned or tolerant as its readers need.
//!
//! The rules know nothing of this: conversion is by hand, both ways, in here.

pub mod id;
pub mod object;
pub mod instant;
pub mod policy;
mod configured;
mod decision;
pub mod event;
pub mod feed;
pub mod ask;
pub mod beat;
pub mod socket;
pub mod frame;
pub mod token;
