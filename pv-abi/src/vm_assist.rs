//! Behaviours that a guest turns on or off (public header `xen.h`): x0 is the [`Cmd`], x1 the [`Type`].

number_enum! {
    /// What to do.
    pub enum Cmd {
        /// Turn on.
        Enable = 0,
        /// Turn off.
        Disable = 1,
    }
}

number_enum! {
    /// Which behaviour. Arm knows [`Type::RunstateUpdateFlag`] only.
    pub enum Type {
        /// x86 only.
        FourGbSegments = 0,
        /// x86 only.
        FourGbSegmentsNotify = 1,
        /// x86 only.
        WritablePagetables = 2,
        /// x86 only.
        PaeExtendedCr3 = 3,
        /// x86 only.
        ArchitecturalIopl = 4,
        /// Mark updates of the run state area with [`crate::vcpu::XEN_RUNSTATE_UPDATE`].
        RunstateUpdateFlag = 5,
        /// x86 only.
        M2pStrict = 32,
    }
}
