# shellcheck shell=sh
# For scenarios that interrupt: whether half a domain is left.

# nothing_left FREE: no domain but dom0, nothing of one in XenStore or in files, and that much memory is free.
nothing_left() {
    [ "$(xl list | wc -l)" = 2 ] && [ "$(xl info | sed -n 's/^free_memory *: *//p')" = "$1" ] &&
        [ "$(find /var/lib/xen -name 'userdata-?.[1-9]*' | wc -l)" = 0 ] &&
        [ "$(xenstore-ls -f | grep -c -e '^/local/domain/[1-9]' -e '^/vm/' -e '^/libxl/[1-9]')" = 0 ]
}
what_is_left() {
    xl list
    xl info | grep free_memory
    find /var/lib/xen -name 'userdata-?.[1-9]*'
    xenstore-ls -f | grep -e '^/local/domain/[1-9]' -e '^/vm/' -e '^/libxl/[1-9]' | head -n 20
}
