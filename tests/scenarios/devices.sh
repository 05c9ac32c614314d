# dom0's own devices: an ext4 disk written and read under load with checksums, the network, all CPUs busy at once.
#
# run: gic2: --gic 2 --smp 2 --disk "$work/disk" --net "tftp=$work/tftp,guestfwd=tcp:10.0.2.100:7-cmd:tee $work/received"
# run: gic3: --gic 3 --smp 2 --disk "$work/disk" --net "tftp=$work/tftp,guestfwd=tcp:10.0.2.100:7-cmd:tee $work/received"
# alone: all CPUs are kept busy and none may stall
# timeout: 300
# host: mkdir "$work/files" "$work/tftp"
# host: head -c 67108864 /dev/urandom >"$work/files/given"; (cd "$work/files" && md5sum given >given.md5)
# host: head -c 1048576 /dev/urandom >"$work/tftp/file"; (cd "$work/tftp" && md5sum file >file.md5)
# host: truncate -s 256M "$work/disk"; mkfs.ext4 -q -d "$work/files" "$work/disk"
# reject: ^FAIL
# after: e2fsck -fn "$work/disk"
# after: debugfs -R "dump /taken $work/taken" "$work/disk"; debugfs -R "dump /taken.md5 $work/taken.md5" "$work/disk"
# after: cd "$work" && md5sum -c taken.md5 && [ "$(stat -c %s taken)" = 67108864 ]
# after: cd "$work" && cmp received tftp/file
. /scenario.sh

jiffies_busy() { while read -r name user nice system _; do case $name in cpu[0-9]*) echo $((user + nice + system)) ;; esac; done </proc/stat; }

# The load: one loop for each CPU, for as long as the rest may take.
before=$(jiffies_busy | tr '\n' ' ')
i=0
while [ "$i" -lt "$smp" ]; do
    busy "$i" 250
    i=$((i + 1))
done

disk=/dev/vda
check "the disk is there" wait_for 10 test -b $disk
check "ext4 mounts" mount -t ext4 $disk /mnt
cd /mnt || fail "no /mnt"
check "64 MiB read are what the host wrote" md5sum -c given.md5
dd if=/dev/urandom of=taken bs=1M count=64 2>/dev/null
md5sum taken >taken.md5
sync
echo 3 >/proc/sys/vm/drop_caches
check "64 MiB written are what was meant" md5sum -c taken.md5

leased() { ip -4 addr show eth0 | grep -q 'inet 10\.0\.2\.'; }
check "DHCP gives an address" wait_for 30 leased
check "the router answers" ping -c 5 -W 5 10.0.2.2
cd /tmp || fail "no /tmp"
check "TFTP gives a file" tftp -g -b 1428 -r file 10.0.2.2
check "TFTP gives its checksum" tftp -g -r file.md5 10.0.2.2
check "1 MiB by UDP arrive whole" md5sum -c file.md5
nc 10.0.2.100 7 <file >echoed
check "1 MiB by TCP come back whole" cmp file echoed

now=$(jiffies_busy | tr '\n' ' ')
i=0
for busy_now in $now; do
    busy_before=${before%% *}
    before=${before#* }
    check "CPU $i has worked" [ $((busy_now - busy_before)) -ge 200 ]
    i=$((i + 1))
done

cd /
check "ext4 unmounts" umount /mnt
no_new_warnings
finish
