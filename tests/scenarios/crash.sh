# A crash of EL2 says what, where and how it came there, by name, and stops where `noreboot` asks for that.
#
# hypervisors: nacelle
# timeout: 60
# run: noreboot: --until "Manual reset required"
# expect: \(XEN\) Panic on CPU [0-9]+:
# expect: \(XEN\) at hyp/src/keys.rs:[0-9]+
# expect: \(XEN\) +\[<[0-9a-f]{16}>\] hyp::.*\+0x
. /scenario.sh

xl debug-keys C
fail "Nacelle goes on after 'C'"
