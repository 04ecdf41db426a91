//! The smallest program on `RtmmNommu`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::RtmmNommu);
