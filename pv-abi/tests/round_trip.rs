//! Numbers and structures survive the way through the ABI: an enumeration accepts exactly the numbers that it gives out,
//! and a union gives back what was put into it.

use proptest::prelude::*;
use pv_abi::*;

/// Every variant's number is accepted, as that variant; for any number: it is accepted if and only if a variant has it.
macro_rules! round_trips {
    ($($test:ident: $name:path),* $(,)?) => {
        proptest! { $(
            #[test]
            fn $test(raw in prop_oneof![0u32..1100, any::<u32>()]) {
                type Enumeration = $name;
                for &variant in Enumeration::ALL {
                    prop_assert_eq!(Enumeration::try_from(variant.raw()), Ok(variant));
                }
                let with_this_number: Vec<Enumeration> =
                    Enumeration::ALL.iter().copied().filter(|variant| variant.raw() == raw).collect();
                match Enumeration::try_from(raw) {
                    Ok(variant) => prop_assert_eq!(with_this_number, vec![variant]),
                    Err(UnknownValue(value)) => {
                        prop_assert_eq!(value, raw);
                        prop_assert!(with_this_number.is_empty());
                    }
                }
            }
        )* }
    };
}

round_trips! {
    hypercall_numbers: hypercall::Hypercall,
    console_io: xen::ConsoleIo,
    virqs: xen::Virq,
    event_channel_operations: event_channel::Op,
    event_channel_states: event_channel::StatusKind,
    memory_operations: memory::Op,
    physmap_spaces: memory::Space,
    resource_types: memory::ResourceType,
    sched_operations: sched::Op,
    shutdown_reasons: sched::ShutdownReason,
    vcpu_operations: vcpu::Op,
    runstates: vcpu::Runstate,
    version_operations: version::Op,
    vm_assist_commands: vm_assist::Cmd,
    vm_assist_types: vm_assist::Type,
    grant_table_operations: grant_table::Op,
    hvm_operations: hvm::Op,
    hvm_parameters: hvm::Index,
    physdev_operations: physdev::Op,
    platform_operations: platform::Op,
    domctl_operations: domctl::Op,
    schedulers: domctl::SchedulerId,
    scheduler_commands: domctl::SchedulerCmd,
    triggers: domctl::Trigger,
    passed_through_interrupts: domctl::PtIrqType,
    sysctl_operations: sysctl::Op,
    cpu_hotplug_operations: sysctl::CpuHotplugOp,
    cpupool_operations: sysctl::CpupoolCmd,
    xenstore_messages: xs_wire::MessageType,
}

proptest! {
    /// A member written over another leaves what lies behind it.
    #[test]
    fn a_union_keeps_its_members(words: [u64; 16], max: u32, secs: u64, nsecs: u32, system_time: u64) {
        let mut union = domctl::DomctlUnion::of(&words);
        prop_assert_eq!(union.get::<[u64; 16]>(), words);
        union.set(&domctl::MaxVcpus { max });
        prop_assert_eq!(union.get::<domctl::MaxVcpus>().max, max);
        let mut expected = domctl::DomctlUnion::of(&words).get::<[u32; 32]>();
        expected[0] = max;
        prop_assert_eq!(union.get::<[u32; 32]>(), expected);

        let time = platform::Settime64 { secs, nsecs, mbz: 0, system_time };
        prop_assert_eq!(platform::PlatformUnion::of(&time).get::<platform::Settime64>(), time);
    }

    /// A union member with weaker alignment than the union's words.
    #[test]
    fn a_status_reads_back(dom: u16, port: u32) {
        let end = event_channel::StatusInterdomain { dom: DomId::new(dom), port, ..Default::default() };
        let status = event_channel::Status { u: event_channel::StatusUnion::of(&end), ..Default::default() };
        prop_assert_eq!(status.u.get::<event_channel::StatusInterdomain>(), end);
        prop_assert_eq!(status.u.get::<event_channel::StatusUnbound>().dom, DomId::new(dom));
    }
}
