# What scripts/sd-image makes for a Raspberry Pi 4, and what it refuses.
#
# hypervisors: nacelle
# timeout: 400
# host: [[ -e $BUILD/payloads/el3-stub ]] || "$ROOT/scripts/build" stub
# run: card:
# run: network:
# run: mistakes:
# command: "$ROOT/tests/raspi4b/card-test" "$variant" "$work"
# reject: ^FAIL
