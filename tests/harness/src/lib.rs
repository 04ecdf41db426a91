//! The facade the suites import as embedded_test
#![no_std]
