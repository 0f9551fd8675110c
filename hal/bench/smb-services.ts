/** SMB: one smbd for each virtual server that shares something. */
import {
  bareAddresses,
  offersSmb,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { SmbService } from "../linux/samba/config.ts";
import { seenAt } from "../linux/samba/instance.ts";
import { createSamba, parseSmbService } from "../linux/samba.ts";
import { type BenchServices, placeOf, ServicePart, type Surroundings } from "./service-part.ts";

/** Where the passwords are, on the first volume of the virtual server. */
const passwordFile = ".dyad/smb/smbpasswd";

export function openSmbServices(surroundings: Surroundings): BenchServices {
  const { runDir } = surroundings;
  return new ServicePart<SmbService>(
    {
      offers: offersSmb,
      specOf: ({ server }) => specOf(server),
      makeDriver(name, listener) {
        const place = placeOf(surroundings, name);
        return createSamba({ name, runDir, place, ...listener });
      },
    },
    surroundings,
  );
}

function specOf(server: VirtualServerConfig): Outcome<SmbService> {
  const { name, volumes, smb } = server;
  const [first] = volumes;
  if (first === undefined || smb === undefined)
    return failed("badInput", `SMB service ${name}`, "no volume, or nobody who may come");
  return parseSmbService({
    name,
    workgroup: smb.workgroup,
    addresses: bareAddresses(server),
    guest: smb.guest,
    users: smb.users.map(({ gid, ...user }) => ({ ...user, gid: gid ?? user.uid })),
    writeThrough: smb.writeThrough,
    shares: volumes.flatMap(({ share, disk, ...volume }) =>
      share === undefined
        ? []
        : [{ name: share, path: `${seenAt}/${disk}`, shared: volume.export !== undefined }],
    ),
    passwordFile: `${seenAt}/${first.disk}/${passwordFile}`,
  });
}
