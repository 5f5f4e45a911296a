-- The original service's tables, so that an empty database and one that the original made end up the same.
-- Every statement changes nothing where the object is there already. Expand only: no later migration drops
-- or narrows any of it, since the original must be able to go on using the same database.

CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;

CREATE SEQUENCE IF NOT EXISTS public.machine_id_seq AS integer;
CREATE SEQUENCE IF NOT EXISTS public.material_id_seq AS integer;
CREATE SEQUENCE IF NOT EXISTS public.material_price_id_seq AS integer;
CREATE SEQUENCE IF NOT EXISTS public.part_information_id_seq AS integer;

CREATE TABLE IF NOT EXISTS public.machine (
    id integer NOT NULL DEFAULT nextval('public.machine_id_seq'),
    CONSTRAINT "PK_acc588900ffa841d96eb5fd566c" PRIMARY KEY (id)
);

CREATE TABLE IF NOT EXISTS public.material (
    id integer NOT NULL DEFAULT nextval('public.material_id_seq'),
    name character varying NOT NULL,
    CONSTRAINT "PK_0343d0d577f3effc2054cbaca7f" PRIMARY KEY (id),
    CONSTRAINT "UQ_f7e289dde0c4fdfba5bee2de40b" UNIQUE (name)
);

CREATE TABLE IF NOT EXISTS public.part_information (
    id integer NOT NULL DEFAULT nextval('public.part_information_id_seq'),
    "defaultPrice" numeric NOT NULL DEFAULT '0'::numeric,
    "timeToProduce" integer NOT NULL,
    CONSTRAINT "PK_06874021358b955fd0856d1c7c4" PRIMARY KEY (id)
);

CREATE TABLE IF NOT EXISTS public.material_price (
    id integer NOT NULL DEFAULT nextval('public.material_price_id_seq'),
    price numeric NOT NULL DEFAULT '0'::numeric,
    date character varying NOT NULL,
    "materialId" integer,
    CONSTRAINT "PK_c8b7d4ccbc0b0d2a33f1239d7d0" PRIMARY KEY (id),
    CONSTRAINT "FK_ad4a0adb9e22ac71143040be5d2" FOREIGN KEY ("materialId") REFERENCES public.material(id)
);

CREATE TABLE IF NOT EXISTS public.material_part_information (
    "materialId" integer NOT NULL,
    "partInformationId" integer NOT NULL,
    CONSTRAINT "PK_430bfb5c62f8b858ab2201c4acd" PRIMARY KEY ("materialId", "partInformationId"),
    CONSTRAINT "FK_1c8a34de114c7f26d7c818ffae5" FOREIGN KEY ("materialId")
        REFERENCES public.material(id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT "FK_aab19da91350cb6ffc474f4b024" FOREIGN KEY ("partInformationId")
        REFERENCES public.part_information(id)
);

CREATE TABLE IF NOT EXISTS public.supply_chain (
    id uuid NOT NULL DEFAULT public.uuid_generate_v4(),
    "machineId" integer NOT NULL,
    "timeOfProduction" bigint NOT NULL,
    "partId" integer NOT NULL,
    "order" integer NOT NULL,
    var1 integer,
    var2 character varying,
    var3 character varying,
    var4 integer,
    var5 boolean NOT NULL,
    CONSTRAINT "PK_e2abd9ccf9bea106a6080ad5f52" PRIMARY KEY (id),
    CONSTRAINT "FK_027c3d3ad4cb59ddc20d8f670b2" FOREIGN KEY ("machineId") REFERENCES public.machine(id),
    CONSTRAINT "FK_76a6631b2801637d6c3612d4ee2" FOREIGN KEY ("partId") REFERENCES public.part_information(id)
);

ALTER SEQUENCE public.machine_id_seq OWNED BY public.machine.id;
ALTER SEQUENCE public.material_id_seq OWNED BY public.material.id;
ALTER SEQUENCE public.material_price_id_seq OWNED BY public.material_price.id;
ALTER SEQUENCE public.part_information_id_seq OWNED BY public.part_information.id;

CREATE INDEX IF NOT EXISTS "IDX_1c8a34de114c7f26d7c818ffae" ON public.material_part_information ("materialId");
CREATE INDEX IF NOT EXISTS "IDX_aab19da91350cb6ffc474f4b02" ON public.material_part_information ("partInformationId");
